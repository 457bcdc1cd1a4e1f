"""What `plum` can be asked to do, a file a family; `gin/run/` binds one function each."""
