"""Labels as other tools read them, one file a format. Knows no Ray; imports `stores`, `sources` and
`outputs`.
"""

# The file in here that writes a format, by a function as ``flowerray.exports.rows.Write``.
FORMATS = {
    "csv": "tables",
    "jsonl": "tables",
    "labelstudio": "label_studio",
    "fiftyone": "fiftyone",
    "folders": "folders",
}
