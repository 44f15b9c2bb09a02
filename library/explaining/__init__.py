"""Why a network answers as it does, as pictures."""
