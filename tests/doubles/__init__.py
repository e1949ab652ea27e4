"""What stands in for the slow, the rare and the far: quick command lines, an engine without workers, faulty storage."""
