"""One suite for each protocol, which every plugin of the family passes."""
