"""ComfyUI: graphs of nodes, one at a time, its history the only word that counts."""
