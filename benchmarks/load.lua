-- Load for wrk: the bodies of a file in turn, closed or (with BENCH_RATE) on a schedule; the result as one line of JSON.
--
-- BENCH_BODIES  file, one JSON body a line      BENCH_PATH        where to post them
-- BENCH_TOKEN_FILE  bearer token, or empty      BENCH_RATE        requests/s, or 0 for as fast as it goes
-- One thread (wrk -t1): the schedule is the thread's. Latency counts from when a request is sent; `late` says how many
-- were sent more than 5 ms after their time, because every connection was waiting.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } bench_time; int clock_gettime(int clock, bench_time *time); ]]
local MONOTONIC, LATE_MS = 1, 5
local clock = ffi.new("bench_time")
local rate = tonumber(os.getenv("BENCH_RATE") or "0")
local requests, turn = {}, 0
local began, slot = nil, 0
late = 0
local thread_of_all

local function now_ms()
    ffi.C.clock_gettime(MONOTONIC, clock)
    return tonumber(clock.s) * 1000 + tonumber(clock.ns) / 1e6
end

function setup(thread)
    thread_of_all = thread
end

function init()
    wrk.headers["content-type"] = "application/json"
    local token_file = os.getenv("BENCH_TOKEN_FILE")
    if token_file and token_file ~= "" then
        wrk.headers["authorization"] = "Bearer " .. io.open(token_file):read("*l")
    end
    for body in io.lines(os.getenv("BENCH_BODIES")) do
        requests[#requests + 1] = wrk.format("POST", os.getenv("BENCH_PATH"), nil, body)
    end
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

if rate > 0 then
    function delay()
        local now = now_ms()
        began = began or now
        local wait = began + slot * 1000 / rate - now
        slot = slot + 1
        if wait < -LATE_MS then late = late + 1 end
        return math.max(0, math.floor(wait + 0.5))
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "late": %d, '
            .. '"errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
        latency:percentile(99) / 1e3, latency.max / 1e3, thread_of_all:get("late"),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
