"""Any image in, classes with probabilities out."""
