-- Sends the lines of the file BODIES one after the other to PATH_, and reports as JSON.
-- Microseconds throughout, as wrk counts them.
local requests = {}
local next_one = 0

function init(args)
   local headers = { ["Content-Type"] = "application/json" }
   for line in io.lines(os.getenv("BODIES")) do
      requests[#requests + 1] = wrk.format("POST", os.getenv("PATH_"), headers, line)
   end
end

function request()
   next_one = next_one % #requests + 1
   return requests[next_one]
end

function done(summary, latency, _)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"duration_us":%d,"bad":%d,"lost":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d}\n',
      summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
