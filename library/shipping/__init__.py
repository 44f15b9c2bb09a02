"""A snapshot → what runs elsewhere: SavedModel, LiteRT, ONNX; each compared before it is given."""
