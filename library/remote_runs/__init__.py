"""A run at a URL: generations of it in a bucket, complete or absent, and local copies to use."""
