-- Prints the result of a run as one line of JSON; arguments after "--" give the method, and the body or its size ("#1048576").
init = function(args)
  wrk.method = args[1] or "GET"
  local size = args[2] and args[2]:match("^#(%d+)$")
  if size then
    wrk.body = string.rep("x", tonumber(size))
  elseif args[2] then
    wrk.body = args[2]
    wrk.headers["Content-Type"] = "application/json"
  end
end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '@wrk {"requests": %d, "seconds": %.6f, "p50_ms": %.6f, "p99_ms": %.6f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
