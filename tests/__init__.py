"""One file per room, the same name; no network, no GPU."""
