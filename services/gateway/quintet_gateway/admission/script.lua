-- Takes what a call demands of its limits: all of it, or nothing. Redis runs it atomically.
--
-- KEYS: the windows', then the places'.
-- ARGV: whether by force (1 or 0), number of windows, lease of a place in microseconds, its
--       holder; then limit, period in microseconds and cost of each window, then the limit of
--       each of the places.
-- A window's value is its level, in units that flow out at limit / period, and the time at
-- which it stood there. Places are a sorted set of holders by the end of their leases.
--
-- Returns the number of what refuses (0: nothing), in how many microseconds to try again, the
-- number of the window that is told of (0: none), what is left of it, and in how many
-- microseconds all of it is.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local force, windows = ARGV[1] == '1', tonumber(ARGV[2])
local levels, ttls = {}, {}
local refused, wait, told, remaining, reset = 0, -1, 0, 0, 0
local least = math.huge

local function tell(number, limit, period, level)
  told = number
  remaining = math.max(0, math.floor(limit - level + 1e-6))
  reset = math.floor(level * period / limit)
end

for i = 1, windows do
  local limit, period = tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3])
  local cost = tonumber(ARGV[3 * i + 4])
  if not force then cost = math.min(cost, limit) end
  local level, kept = 0, redis.call('GET', KEYS[i])
  if kept then
    local units, at = string.match(kept, '(%S+) (%S+)')
    level = math.max(0, units - math.max(0, now - at) * limit / period)
  end
  local after = math.max(0, level + cost)
  levels[i], ttls[i] = after, math.ceil(after * period / limit / 1000)
  if not force and after > limit + 1e-6 then
    local missing = (after - limit) * period / limit
    if missing > wait then
      refused, wait = i, missing
      tell(i, limit, period, level)
    end
  elseif refused == 0 and (limit - after) / limit < least then
    least = (limit - after) / limit
    tell(i, limit, period, after)
  end
end

for i = windows + 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if refused == 0 and redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[4 + 2 * windows + i]) then
    refused, told = i, 0
  end
end

if refused ~= 0 then
  return {refused, math.ceil(math.max(0, wait)), told, remaining, reset}
end
for i = 1, windows do
  if ttls[i] > 0 then
    local value = string.format('%.17g %.0f', levels[i], now)
    redis.call('SET', KEYS[i], value, 'PX', ttls[i] + 1000)
  else
    redis.call('DEL', KEYS[i])
  end
end
for i = windows + 1, #KEYS do
  local lease = tonumber(ARGV[3])
  redis.call('ZADD', KEYS[i], now + lease, ARGV[4])
  redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000))
end
return {0, 0, told, remaining, reset}
