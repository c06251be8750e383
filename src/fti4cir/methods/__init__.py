"""Methods of composed retrieval, one file each."""
