"""What you edit: settings, inputs, networks, objective, and how they come together."""
