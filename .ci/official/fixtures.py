"""The tools, prompts and resources of fixed names that the official suite asks for, laid over the server that is judged.

They are what the suite's descriptions say and nothing else. Everything around them stays the server's own: its transport, its middleware
with the seal of request states, its lists with the fixtures behind what it has, its stream of changes. Logging, sampling and roots exist
here alone.
"""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Context = ServerRequestContext[Any, Any]
Result = types.CallToolResult | types.InputRequiredResult
MISSING_CAPABILITY = -32021


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    + _chunk(b"IEND", b"")
).decode()
SILENCE = base64.b64encode(
    b"RIFF"
    + struct.pack("<I", 38)
    + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    + b"data\x02\0\0\0\0\0"
).decode()
IMAGE = types.ImageContent(type="image", data=PIXEL, mime_type="image/png")


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


def embedded(uri: str, mime: str, said: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime, text=said)
    )


def gives(*content: Any, error: bool = False) -> "Fixture":
    async def call(ctx: Context, params: Any) -> Result:
        return types.CallToolResult(content=list(content), is_error=error)

    return call


Fixture = Callable[[Context, types.CallToolRequestParams], Awaitable[Result]]


# --- while a call runs


async def logs(ctx: Context, params: Any) -> Result:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", said, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return types.CallToolResult(content=[text("It logged three times.")])


async def progresses(ctx: Context, params: Any) -> Result:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await asyncio.sleep(0.05)
    return types.CallToolResult(content=[text("It came to its end.")])


async def asks_back(ctx: Context, request: Any, answer: Any) -> Any:
    return await ctx.session.send_request(
        request, answer, metadata=ServerMessageMetadata(related_request_id=ctx.request_id)
    )


async def samples(ctx: Context, params: types.CallToolRequestParams) -> Result:
    answer = await asks_back(ctx, sampling((params.arguments or {})["prompt"], 100), types.CreateMessageResult)
    return types.CallToolResult(content=[text(f"LLM response: {answer.content.text}")])


def elicits(said: str, schema: Any, required: tuple[str, ...] = ()) -> Fixture:
    async def call(ctx: Context, params: types.CallToolRequestParams) -> Result:
        message = (params.arguments or {}).get("message", "Please fill this in.")
        answer = await asks_back(ctx, elicitation(message, schema, required), types.ElicitResult)
        told = f"action={answer.action}, content={json.dumps(answer.content)}"
        return types.CallToolResult(content=[text(f"{said}: {told}")])

    return call


async def needs_sampling(ctx: Context, params: Any) -> Result:
    if ctx.session.client_capabilities is None or ctx.session.client_capabilities.sampling is None:
        raise MCPError(MISSING_CAPABILITY, "This needs sampling.", {"requiredCapabilities": {"sampling": {}}})
    return types.CallToolResult(content=[text("It is there.")])


# --- input that is returned for


def sampling(prompt: str, tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


def elicitation(message: str, properties: Any, required: tuple[str, ...] = ()) -> types.ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(required or properties)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def named(message: str, field: str, kind: str = "string") -> types.ElicitRequest:
    return elicitation(message, {field: {"type": kind}})


def rounds(*asked: dict[str, Any], state: bool = False, says: str = "state-ok") -> Fixture:
    """Ask for these inputs, one round after the other; what is missing is asked for again."""

    async def call(ctx: Context, params: Any) -> Any:
        answers: dict[str, Any] = json.loads(params.request_state) if params.request_state else {}
        for key, answer in (params.input_responses or {}).items():
            answers[key] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
        for requests in asked:
            missing = {key: request for key, request in requests.items() if key not in answers}
            if missing:
                kept = json.dumps(answers) if state else None
                return types.InputRequiredResult(input_requests=missing, request_state=kept)
        return types.CallToolResult(content=[text(f"{says} {json.dumps(answers)}")])

    return call


async def what_the_client_can(ctx: Context, params: Any) -> Any:
    declared = ctx.session.client_capabilities
    requests = {
        key: request
        for key, capability, request in (
            ("name", "elicitation", named("What is your name?", "name")),
            ("capital", "sampling", sampling("What is the capital of France?", 100)),
        )
        if declared is not None and getattr(declared, capability) is not None
    }
    if params.input_responses or not requests:
        return types.CallToolResult(content=[text("Nothing more is needed.")])
    return types.InputRequiredResult(input_requests=requests)


NAME = named("What is your name?", "name")
ROOTS = types.ListRootsRequest()
USER = {"username": {"type": "string", "description": "User's response"}, "email": {"type": "string", "description": "User's email address"}}  # fmt: skip
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
TITLED = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]
ENUMS = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}  # fmt: skip
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {
        "name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}, "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"}, "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}  # fmt: skip
NOTHING = {"type": "object", "properties": {}}
SCHEMAS: dict[str, Any] = {
    "json_schema_2020_12_tool": SCHEMA_2020_12,
    "test_sampling": {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]},
    "test_elicitation": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
    "test_header": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}

TOOLS: dict[str, Fixture] = {
    "test_simple_text": gives(text("This is a simple text response for testing.")),
    "test_image_content": gives(IMAGE),
    "test_audio_content": gives(types.AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")),
    "test_embedded_resource": gives(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")),
    "test_multiple_content_types": gives(
        text("Multiple content types test:"), IMAGE, embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    ),
    "test_error_handling": gives(text("This tool intentionally returns an error for testing"), error=True),
    "test_tool_with_logging": logs,
    "test_logging_tool": logs,
    "test_tool_with_progress": progresses,
    "test_sampling": samples,
    "test_elicitation": elicits("User response", USER),
    "test_elicitation_sep1034_defaults": elicits("Elicitation completed", DEFAULTS),
    "test_elicitation_sep1330_enums": elicits("Elicitation completed", ENUMS),
    "test_missing_capability": needs_sampling,
    "test_streaming_elicitation": rounds({"name": NAME}),
    "json_schema_2020_12_tool": gives(text("ok")),
    "test_header": gives(text("ok")),
    "test_input_required_result_elicitation": rounds({"user_name": NAME}),
    "test_input_required_result_sampling": rounds({"capital_question": sampling("What is the capital of France?", 100)}),
    "test_input_required_result_list_roots": rounds({"client_roots": ROOTS}),
    "test_input_required_result_request_state": rounds({"confirm": named("Please confirm", "ok", "boolean")}, state=True),
    "test_input_required_result_multiple_inputs": rounds(
        {"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}, state=True
    ),
    "test_input_required_result_multi_round": rounds(
        {"step1": named("Step 1: What is your name?", "name")}, {"step2": named("Step 2: What is your favorite color?", "color")}, state=True
    ),
    "test_input_required_result_tampered_state": rounds({"confirm": named("Please confirm", "ok", "boolean")}, state=True),
    "test_input_required_result_capabilities": what_the_client_can,
}  # fmt: skip


# --- prompts and resources


def says(*content: Any) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=one) for one in content])


async def prompt(params: types.GetPromptRequestParams) -> Any:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return says(text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            return says(text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
        case "test_prompt_with_embedded_resource":
            content = embedded(given["resourceUri"], "text/plain", "Embedded resource content for testing.")
            return says(content, text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            return says(IMAGE, text("Please analyze the image above."))
    if not params.input_responses:
        return types.InputRequiredResult(
            input_requests={"user_context": named("What context should the prompt use?", "context")}
        )
    return says(text(f"In the context of {params.input_responses['user_context']}"))


PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (), "test_prompt_with_arguments": ("arg1", "arg2"), "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (), "test_input_required_result_prompt": (),
}  # fmt: skip


def resource(uri: str) -> Any:
    if uri == "test://static-binary":
        return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PIXEL)
    if uri.startswith("test://template/"):
        number = uri.split("/")[3]
        said = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return types.TextResourceContents(uri=uri, mime_type="application/json", text=said)
    return types.TextResourceContents(
        uri=uri, mime_type="text/plain", text="This is the content of the static text resource."
    )


RESOURCES = ("test://static-text", "test://static-binary", "test://watched-resource")


# --- over the server


def over(server: Server[Any]) -> None:
    """Lay the fixtures over the handlers that are there."""
    own = {
        method: server.get_request_handler(method)
        for method in ("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen")
    }  # fmt: skip
    changed = own["subscriptions/listen"].handler.__self__._bus.publish  # noqa: SLF001  the stream of changes is the server's own

    async def list_tools(ctx: Context, params: Any) -> Any:
        listed = await own["tools/list"].handler(ctx, params)
        more = [
            types.Tool(name=name, description="A fixture of the suite.", input_schema=SCHEMAS.get(name, NOTHING))
            for name in (*TOOLS, "test_trigger_tool_change", "test_trigger_prompt_change")
        ]
        return listed.model_copy(update={"tools": [*listed.tools, *more]})

    async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Any:
        if params.name.startswith("test_trigger_"):
            await changed(ToolsListChanged() if params.name == "test_trigger_tool_change" else PromptsListChanged())
            return types.CallToolResult(content=[text("It is told.")])
        fixture = TOOLS.get(params.name, own["tools/call"].handler)
        return await fixture(ctx, params)

    async def list_prompts(ctx: Context, params: Any) -> Any:
        listed = await own["prompts/list"].handler(ctx, params)
        more = [
            types.Prompt(
                name=name,
                description="A fixture of the suite.",
                arguments=[types.PromptArgument(name=one, description=one, required=True) for one in wanted],
            )
            for name, wanted in PROMPTS.items()
        ]
        return listed.model_copy(update={"prompts": [*listed.prompts, *more]})

    async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Any:
        return await (prompt(params) if params.name in PROMPTS else own["prompts/get"].handler(ctx, params))

    async def read(ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        uri = str(params.uri)
        if uri in RESOURCES or uri.startswith("test://template/"):
            return types.ReadResourceResult(contents=[resource(uri)])
        return await own["resources/read"].handler(ctx, params)

    def unless_fixture(method: str) -> Any:
        async def handler(ctx: Context, params: Any) -> Any:
            return types.EmptyResult() if str(params.uri) in RESOURCES else await own[method].handler(ctx, params)

        return handler

    async def set_level(ctx: Context, params: Any) -> types.EmptyResult:
        assert ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS
        return types.EmptyResult()

    for method, kind, handler in (
        ("tools/list", types.PaginatedRequestParams, list_tools),
        ("tools/call", types.CallToolRequestParams, call_tool),
        ("prompts/list", types.PaginatedRequestParams, list_prompts),
        ("prompts/get", types.GetPromptRequestParams, get_prompt),
        ("resources/read", types.ReadResourceRequestParams, read),
        ("resources/subscribe", types.SubscribeRequestParams, unless_fixture("resources/subscribe")),
        ("resources/unsubscribe", types.UnsubscribeRequestParams, unless_fixture("resources/unsubscribe")),
        ("logging/setLevel", types.SetLevelRequestParams, set_level),
    ):
        server.add_request_handler(method, kind, handler)
