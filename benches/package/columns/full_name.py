"""The field full_name of the benchmark."""


def detect_header(*, header, field_meta, **_):
    """The header is the label or a synonym."""
    names = {field_meta["label"].lower(), *field_meta.get("synonyms", [])}
    return {"scores": {"full_name": 0.8 if str(header or "").strip().lower() in names else 0.0}}


def detect_values(*, values_sample, **_):
    """The values look right."""
    hits = sum(1 for value in values_sample if isinstance(value, str) and " " in value)
    return {"scores": {"full_name": 0.4 * hits / max(1, len(values_sample))}}


def transform(*, values, **_):
    return {"values": [" ".join(value.split()).title() if isinstance(value, str) else value for value in values], "warnings": []}


def validate(*, values, field_meta, **_):
    issues = []
    for row, value in enumerate(values, start=1):
        if value is None:
            if field_meta.get("required"):
                issues.append({"row_index": row, "code": "required_missing", "severity": "error", "message": "is required"})
        elif not (" " in value):
            issues.append({"row_index": row, "code": "invalid_format", "severity": "warning", "message": "has an unexpected form"})
    return {"issues": issues}
