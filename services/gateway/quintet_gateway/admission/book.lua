-- Tells a budget's book what is spent at least, by the database; makes it where it is not there.
--
-- KEYS: the book, its reservations. ARGV: what is spent, how long to keep it in milliseconds.
local spent = redis.call('HGET', KEYS[1], 'spent')
if not spent then
  local held = 0
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    held = held + string.match(member, '^%d+')
  end
  redis.call('HSET', KEYS[1], 'spent', ARGV[1], 'held', string.format('%.0f', held))
elseif tonumber(ARGV[1]) > tonumber(spent) then
  redis.call('HSET', KEYS[1], 'spent', ARGV[1])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
