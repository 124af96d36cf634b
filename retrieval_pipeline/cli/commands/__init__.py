"""The commands of `retrieval`, one a module; heavy imports inside, so that --help is immediate."""
