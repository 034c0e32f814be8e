"""Cases whose answer is not yet as it should be. The list is to shrink to nothing."""

# These fail today. One that begins to pass fails here, until it is taken out.
NOT_YET: set[str] = {
    "nuScenes: samples of no scene",  # they are left out in silence, and the message is that no frame is left
}
