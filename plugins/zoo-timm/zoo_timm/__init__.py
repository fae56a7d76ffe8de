"""Every timm backbone as a zoo model: plugin.py has the names, model.py what they build."""
