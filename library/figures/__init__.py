"""Charts, contact sheets and the HTML that pages are made of."""
