"""A small local server: a page for trying the model in a browser, and a JSON endpoint."""
