"""The pairs room: distances, which pairs of a batch count, and the pairs of whole classes. Losses are made of it."""
