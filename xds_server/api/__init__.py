"""The REST API on 5681 and 5682 (R §4). Never here: what a resource means (`snapshot`), how it is kept (`store`)."""
