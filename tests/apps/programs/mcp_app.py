from mcp.server import MCPServer

server = MCPServer("adds")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


app = server.streamable_http_app()
