"""Running: jobs, their schedule, and the engines that do them."""
