"""The offline side: data sets, training, export and evaluation; never imported by the station."""
