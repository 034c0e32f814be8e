NOT_YET: set[str] = set()
