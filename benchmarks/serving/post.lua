-- Sends the bodies of a file in turn and prints what wrk measured as one line of JSON.
-- Arguments behind `--`: path, content type, and a file with lines "<bytes>" each followed by a body.

local requests, position = {}, 0

function init(args)
  local path, content_type, file = args[1], args[2], assert(io.open(args[3], "rb"))
  local size = file:read("*line")
  while size do
    requests[#requests + 1] = wrk.format(
      "POST", path, { ["Content-Type"] = content_type, ["Host"] = "127.0.0.1" }, file:read(tonumber(size)))
    file:read("*line")
    size = file:read("*line")
  end
  file:close()
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, "not_200": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
