"""Tables: what a run writes into its folder."""
