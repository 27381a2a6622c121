"""Signed updates of the program and of models: two slots, a trial, and the way back.

order.py    what an update is, and who signed it
source.py   from a stick or a web server into the incoming folder
message.py  an order as one message: the signed page
listener.py orders from a broker
slots.py    the two slots, and a step counter that survives a power cut
updater.py  the way of an update: fetch, check, stage, test, swap, probation
"""
