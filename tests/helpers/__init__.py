"""Small data, small networks and processes that tests share."""
