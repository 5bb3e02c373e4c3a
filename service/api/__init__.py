"""HTTP: translates requests into calls and outcomes into answers; decides nothing about images."""
