"""The server. Start reading at app.py; a request's way is drawn in classify.py."""
