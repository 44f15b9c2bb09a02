"""What evaluation found, as pages for people: a report of one network, a comparison of runs."""
