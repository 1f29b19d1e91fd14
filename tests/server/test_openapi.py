from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from serving import build, running

from omnivec.core.plugins import discover
from omnivec.server.openapi import PROBES, document


@pytest.fixture(scope="module")
def described() -> dict:
    app, settings, _ = build(discover("dialects"))
    return json.loads(document(app.door, settings, "some/model"))


def operations(described: dict) -> list[tuple[str, str, dict]]:
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_is_openapi_3_1(described):
    assert described["openapi"] == "3.1.0"
    assert described["info"]["version"] == "1.2.3"


def test_every_operation_says_what_it_is(described):
    seen = set()
    for _, path, operation in operations(described):
        assert 0 < len(operation["summary"]) <= 80, path
        assert " / " not in operation["summary"], path
        assert operation["tags"], path
        assert "200" in operation["responses"], path
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        for name in (part[1:-1] for part in path.split("/") if part.startswith("{")):
            (parameter,) = operation["parameters"]
            assert (parameter["name"], parameter["example"]) == (name, "some/model")
        for sample in operation["x-codeSamples"]:
            assert "{id}" not in sample["source"]
            assert sample["source"] in operation["description"]
        assert operation["x-codeSamples"], path


def test_every_reference_leads_somewhere(described):
    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        if isinstance(value, list):
            return set().union(*map(references, value))
        return set()

    found = references(described)
    assert found
    for reference in found:
        name = reference.removeprefix("#/components/schemas/")
        assert name in described["components"]["schemas"]


def test_every_post_has_a_body_with_an_example_and_a_curl_line(described):
    posts = [
        (path, op)
        for method, path, op in operations(described)
        if method == "post" and not path.startswith("/admin")
    ]
    assert "/v1/embeddings" in [path for path, _ in posts]
    for path, operation in posts:
        body = operation["requestBody"]["content"]["application/json"]
        assert body["schema"], path
        assert {name.partition(" ")[0] for name in body["examples"]} == set(operation["tags"]), path
        for sample in operation["x-codeSamples"]:
            words = shlex.split(sample["source"].replace("\\\n", " "))
            assert words[:2] == [
                "curl",
                f"http://127.0.0.1:8400{path.replace('{id}', 'some/model')}",
            ]
            json.loads(words[-1])
            assert sample["source"] in operation["description"]


def test_dialects_that_share_a_path_are_one_operation_with_several_bodies(described):
    operation = described["paths"]["/v1/embeddings"]["post"]
    assert operation["tags"] == ["openai", "intel", "synesis", "vllm"]
    body = operation["requestBody"]["content"]["application/json"]
    assert len(body["schema"]["oneOf"]) == 4
    assert set(body["examples"]) == {"openai", "intel", "synesis", "vllm"}


def test_paths_that_do_the_same_are_told_of_together(described):
    assert "/v1/models" in described["paths"]
    assert "/api/v1/models" not in described["paths"]
    assert "`/api/v1/models`" in described["paths"]["/v1/models"]["get"]["description"]
    assert "/embeddings" not in described["paths"]
    told = described["paths"]["/v1/embeddings"]["post"]["description"]
    assert "`/embeddings` (openai, intel, vllm only)" in told
    assert "`/api/v1/embeddings` (openai, vllm only)" in told


def test_intels_routes_are_shown_and_its_own_under_its_profile(described):
    assert {"/model/list", "/model/current", "/model/capabilities"} <= described["paths"].keys()
    schemas = described["components"]["schemas"]
    kinds = schemas["IntelEmbeddingRequest"]["properties"]["input"]["discriminator"]["mapping"]
    assert len(kinds) == 9
    keys = schemas["SegmentConfig"]["properties"]
    assert {"startOffsetSec", "clip_duration", "num_frames", "frame_indexes"} <= keys.keys()
    assert described["paths"]["/health"]["get"]["tags"] == ["server"]
    app, settings, _ = build(discover("dialects"), dialect="intel")
    own = json.loads(document(app.door, settings, "some/model"))
    assert own["paths"]["/health"]["get"]["tags"] == ["intel"]
    assert own["paths"]["/models"]["get"]["tags"] == ["intel"]


def test_faults_are_shown_in_each_dialects_envelope_and_status(described):
    responses = described["paths"]["/v1/embeddings"]["post"]["responses"]
    examples = responses["400"]["content"]["application/json"]["examples"]
    assert "error" in examples["openai: bad_request"]["value"]
    examples = responses["422"]["content"]["application/json"]["examples"]
    assert "detail" in examples["synesis: bad_request"]["value"]


def test_keys_are_asked_for_where_there_are_any(described):
    assert described["security"] == []
    app, settings, _ = build(discover("dialects"), api_keys=("k",), host="0.0.0.0")
    keyed = json.loads(document(app.door, settings))
    assert keyed["security"] == [{"key": []}]
    sample = keyed["paths"]["/v1/embeddings"]["post"]["x-codeSamples"][0]["source"]
    assert "Bearer KEY" in sample
    assert "http://127.0.0.1:8400/" in sample


def test_a_curl_line_leads_to_the_address_that_is_listened_on():
    app, settings, _ = build(discover("dialects"), host="::")
    described = json.loads(document(app.door, settings))
    sample = described["paths"]["/v1/embeddings"]["post"]["x-codeSamples"][0]["source"]
    assert "http://[::1]:8400/" in sample  # who listens at :: alone has no 127.0.0.1


def test_every_curl_line_works_when_pasted():
    with running(discover("dialects")) as server, server.client() as client:
        described = client.get("/openapi.json").json()
        ran = 0
        for method, path, operation in operations(described):
            expected = b"403" if path.startswith("/admin") else b"200"  # no key is set
            for sample in operation.get("x-codeSamples", []):
                line = sample["source"].replace("http://127.0.0.1:8400", server.url)
                tell = f"{line} --silent --output /dev/null --write-out '%{{http_code}}'"
                told = subprocess.run(tell, shell=True, capture_output=True, check=True, timeout=60)
                assert (method, path, told.stdout) == (method, path, expected)
                ran += 1
            assert operation["x-codeSamples"], path
    assert ran > 12


def test_the_probes_say_when_they_answer_503(described):
    told = {path: set(described["paths"][path]["get"]["responses"]) for path in PROBES}
    assert told["/live"] == told["/metrics"] == {"200"}
    assert told["/ready"] == told["/health"] == {"200", "503"}


def test_a_probe_that_is_open_needs_no_key_in_its_sample():
    app, settings, _ = build(api_keys=("k",))
    paths = json.loads(document(app.door, settings))["paths"]
    assert paths["/ready"]["get"]["security"] == []
    assert "Bearer" not in paths["/ready"]["get"]["description"]
    assert "Bearer KEY" in paths["/health"]["get"]["description"]


def test_forms_are_told_of_where_they_are_read(described):
    forms = {
        path
        for _, path, operation in operations(described)
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
    }
    assert forms == {"/v1/embeddings"}
    content = described["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]
    file = content["multipart/form-data"]["schema"]["properties"]["file"]
    assert file["items"]["format"] == "binary"


def test_msgpack_is_told_of_beside_json_where_it_is_spoken(described):
    encode = described["paths"]["/v1/encode/{id}"]["post"]
    both = {"application/json", "application/msgpack"}
    assert set(encode["requestBody"]["content"]) == both
    assert set(encode["responses"]["200"]["content"]) == both
    assert set(encode["responses"]["400"]["content"]) == {"application/json"}
    similarity = described["paths"]["/v1/similarity"]["post"]
    assert set(similarity["responses"]["200"]["content"]) == {"application/json"}


def test_the_admin_pages_are_told_of(described):
    load = described["paths"]["/admin/models/{id}/load"]["post"]
    assert load["summary"] == "Load a model; needs the admin key"
    assert "curl -X POST http://127.0.0.1:8400/admin/models/some/model/load" in load["description"]
