"""The ground floor, which every other room may use: parameters, names, places, files, errors."""
