"""Pages for people: an experiment as one HTML file that needs nothing beside it. `python -m kaizen.page FOLDER`."""
