-- Takes what a call demands of its limits: all of it, or nothing. Redis runs it atomically.
--
-- KEYS: the windows', then the places', then two of each budget: its book and its reservations.
-- ARGV: whether by force (1 or 0), number of windows, lease of a place in microseconds, its
--       holder, number of places; then limit, period in microseconds and cost of each window,
--       then the limit of each of the places, then of each budget its limit, the amount, what
--       its holder had reserved, the reservation's lease in microseconds, and how long to keep
--       the book, in milliseconds.
-- A window's value is its level, in units that flow out at limit / period, and the time at
-- which it stood there. Places are a sorted set of holders by the end of their leases. A book
-- has what is spent and what is held; reservations are a sorted set of "amount:holder" by the
-- end of their leases.
--
-- Returns the number of what refuses (0: nothing; -1: a book is not there), in how many
-- microseconds to try again, the number of the window that is told of (0: none), what is left
-- of it, and in how many microseconds all of it is; then what is spent and held of each budget.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local force, windows = ARGV[1] == '1', tonumber(ARGV[2])
local places = tonumber(ARGV[5])
local budgets = (#KEYS - windows - places) / 2
local levels, ttls, spent, held = {}, {}, {}, {}
local refused, wait, told, remaining, reset = 0, -1, 0, 0, 0
local least = math.huge

local function tell(number, limit, period, level)
  told = number
  remaining = math.max(0, math.floor(limit - level + 1e-6))
  reset = math.floor(level * period / limit)
end

for i = 1, windows do
  local limit, period = tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4])
  local cost = tonumber(ARGV[3 * i + 5])
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

for i = windows + 1, windows + places do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if refused == 0 and redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[5 + 2 * windows + i]) then
    refused, told = i, 0
  end
end

local function told_of(number, seconds)
  local reply = {number, math.ceil(math.max(0, seconds)), told, remaining, reset}
  for b = 1, budgets do
    reply[4 + 2 * b], reply[5 + 2 * b] = spent[b], held[b]
  end
  return reply
end

local function give_back(book, amount)
  if amount ~= '0' then redis.call('HINCRBY', book, 'held', '-' .. amount) end
end

local first, base = windows + places, 5 + 3 * windows + places
for b = 1, budgets do
  local book, reservations = KEYS[first + 2 * b - 1], KEYS[first + 2 * b]
  -- What a dead replica had reserved is free again after its lease.
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', reservations, '-inf', now)) do
    redis.call('ZREM', reservations, member)
    give_back(book, string.match(member, '^%d+'))
  end
  if redis.call('EXISTS', reservations) == 0 then redis.call('HDEL', book, 'held') end
  local kept = redis.call('HMGET', book, 'spent', 'held')
  if kept[1] then
    spent[b], held[b] = tonumber(kept[1]), tonumber(kept[2] or 0)
  elseif not force then
    budgets = 0
    return told_of(-1, 0)
  else
    spent[b], held[b] = 0, 0
  end
  local limit, amount = tonumber(ARGV[base + 5 * b - 4]), tonumber(ARGV[base + 5 * b - 3])
  if not force and refused == 0 and spent[b] + held[b] + amount > limit then
    refused = first + b
  end
end

if refused ~= 0 then
  for b = #spent + 1, budgets do
    spent[b], held[b] = 0, 0
  end
  return told_of(refused, wait)
end
for b = 1, budgets do
  local book, reservations = KEYS[first + 2 * b - 1], KEYS[first + 2 * b]
  local amount, reserved = ARGV[base + 5 * b - 3], ARGV[base + 5 * b - 2]
  if not force then
    redis.call('ZADD', reservations, now + ARGV[base + 5 * b - 1], amount .. ':' .. ARGV[4])
    held[b] = redis.call('HINCRBY', book, 'held', amount)
  else
    local had = redis.call('ZREM', reservations, reserved .. ':' .. ARGV[4]) == 1
    -- A book that is not there is made anew from the database, which knows of this.
    if redis.call('HEXISTS', book, 'spent') == 1 then
      if had then give_back(book, reserved) end
      redis.call('HINCRBY', book, 'spent', amount)
    end
  end
  redis.call('PEXPIRE', book, ARGV[base + 5 * b])
  redis.call('PEXPIRE', reservations, ARGV[base + 5 * b])
end
for i = 1, windows do
  if ttls[i] > 0 then
    local value = string.format('%.17g %.0f', levels[i], now)
    redis.call('SET', KEYS[i], value, 'PX', ttls[i] + 1000)
  else
    redis.call('DEL', KEYS[i])
  end
end
for i = windows + 1, windows + places do
  local lease = tonumber(ARGV[3])
  redis.call('ZADD', KEYS[i], now + lease, ARGV[4])
  redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000))
end
return told_of(0, 0)
