"""Networks of every make beside the same function in a plain form, and what every method makes of them: the page
docs/architectures.md, which `cd tests && python -m architectures` writes."""
