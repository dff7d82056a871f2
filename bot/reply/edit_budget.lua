-- The edit budgets: when a write may go out, for all processes. One verb per call, each atomic.
--
-- ARGV[1] is the verb, ARGV[2] the time (empty: this server's own), the rest the arguments of the verb's function
-- below. KEYS are buckets, each a hash. All times are in milliseconds.
-- A fixed window opens with its first write; spaced writes come evenly in it, and those that are unavailable to a write
-- are given away only when it is about to end. A bucket that refills spreads its remaining writes over SPREAD, and
-- widens to the pace of the refill. A sliding window records its last writes. A reply that was just written waits for
-- half an interval, or its writes would show almost the same text.
--
-- <bucket>:owed has the replies that owe a write, each with the time at which its reserve lapses. A 429 shows that a
-- bucket that refills has less than was assumed: that is believed for LEARNED_MS. At the end of its writes one alone
-- shows only that some arrived later than others: see EDGE.

local LAST, SPREAD = 0.05, 10000
local DAY_MS = 86400000 -- no platform asks for a longer pause
local LEARNED_MS, LOWER, LOWEST = 600000, 0.8, 0.25
local EDGE, AGAIN_MS = 2, 60000 -- writes that were left; after another 429 it is no accident
local AGAIN = 1000 -- a write that yields to what others owe asks again soon: it may be given back at any time

-- A value of another version that cannot be read, or is a time too far away, counts as missing.
local function number(written, most)
  local value = tonumber(written)
  return value and value >= 0 and value <= most and value or nil
end

local time = redis.call('TIME')
local now = number(ARGV[2], math.huge) or time[1] * 1000 + math.floor(time[2] / 1000)

-- Returns how many writes a bucket that refills has, and how many it has when it is full.
local function level_of(key, writes, window)
  local saved = redis.call('HMGET', key, 'level', 'at', 'share', 'lowered')
  local lowered, at = number(saved[4], now), number(saved[2], now) or now
  if lowered and now - lowered < LEARNED_MS then writes = writes * (number(saved[3], 1) or 1) end
  local level = (number(saved[1], 2 ^ 52) or writes) + (now - at) * writes / window
  return math.min(level, writes), writes
end

local function reserve(key, owner, lease)
  redis.call('ZADD', key .. ':owed', now + lease, owner)
  redis.call('ZREMRANGEBYSCORE', key .. ':owed', '-inf', now)
  redis.call('PEXPIRE', key .. ':owed', DAY_MS)
end

local function save(key, fields, least)
  redis.call('HSET', key, unpack(fields))
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), least))
end

-- Returns the time to wait, the fields that book the write, and the time until the bucket takes another spaced one.
local function price(key, age, writes, window, shape, spaced, unavailable)
  local saved = redis.call('HMGET', key, 'paused', 'next', 'used', 'ends', 'made')
  local paused, after = number(saved[1], now + DAY_MS) or 0, number(saved[2], now + 2 * window) or 0
  local wait, interval, ending, fields = 0, 0, false, nil
  if shape == 'slides' then
    local made, most = number(saved[5], 2 ^ 52) or 0, writes - unavailable
    local before = number(redis.call('HGET', key, 'write' .. (made - most) % writes), now)
    wait = before and before + window - now or 0
    fields = {'made', made + 1, 'write' .. made % writes, now}
  elseif shape == 'refills' then
    local level, full = level_of(key, writes, window)
    wait = (unavailable + 1 - level) * window / full
    interval = 1 / (full / window + math.max(level - 1, 0) / SPREAD)
    fields = {'level', level - 1, 'at', now}
  else
    local used, ends = number(saved[3], 2 ^ 52) or 0, number(saved[4], now + window) or 0
    if now >= ends then used, ends = 0, now + window end
    local left = writes - used
    if left <= unavailable then wait = ends - now - (left > 0 and LAST * window or 0) end
    interval = (1 - LAST) * window / math.max(writes - unavailable, 1)
    ending = left <= 1
    fields = {'used', used + 1, 'ends', ends}
  end
  if spaced then wait = math.max(wait, after - now, interval / 2 - age) end
  if spaced and not ending then after = now + interval end
  fields[5], fields[6] = 'next', after
  return math.ceil(math.max(wait, paused - now)), fields, math.max(math.ceil(after - now), 0)
end

local verbs = {}

-- KEYS are the bucket, the one that it is within, and the one in which the write owes another. `age` is since the
-- reply's last write, `owner` and `lease` are of its reserves; then follow for each bucket: writes, window, its shape,
-- 1 for a write that is spaced, how many writes are unavailable to this one, and its use: "write", "yield" to what
-- is owed, or "owe" a later write.
--
-- Returns {wait, number}: the time to wait before asking again, and the number (from 0) of the bucket that requires it.
-- {0, spacing} if the write may go out: then all have booked it, else none.
function verbs.take(age, owner, lease, ...)
  local buckets, found, spacing = {...}, {}, {}
  for i, key in ipairs(KEYS) do
    local writes, window, shape, spaced, unavailable, use = unpack(buckets, 6 * i - 5, 6 * i)
    -- What this reply owes is for its last write, so an earlier one yields to it, too.
    local owed = use == 'write' and 0 or redis.call('ZCOUNT', key .. ':owed', '(' .. now, '+inf')
    local wait, fields, next_spaced =
      price(key, age, tonumber(writes), tonumber(window), shape, spaced == '1', unavailable + owed)
    if owed > 0 then wait = math.min(wait, AGAIN) end
    if wait > 0 then return {wait, i - 1} end
    found[i], spacing[i] = use ~= 'owe' and fields, next_spaced
  end
  for i, key in ipairs(KEYS) do
    if found[i] then
      save(key, found[i], 2 * buckets[6 * i - 4] + spacing[i])
    else
      reserve(key, owner, lease)
    end
  end
  return {0, spacing[1]}
end

-- Renews reserves for another lease; one of 0 gives them back.
function verbs.renew(owner, lease)
  for _, key in ipairs(KEYS) do reserve(key, owner, lease) end
end

-- The platform has asked for a pause of this length. Calls that were under way tell nothing new.
function verbs.pause(length, shape, writes, window)
  local key, ends = KEYS[1], now + length
  local saved = redis.call('HMGET', key, 'paused', 'refused')
  local paused = number(saved[1], now + DAY_MS) or 0
  if shape == 'refills' and paused <= now then
    local level, full = level_of(key, writes, window)
    if level > EDGE or now - (number(saved[2], now) or 0) < AGAIN_MS then
      redis.call('HSET', key, 'share', math.max(full / writes * LOWER, LOWEST), 'lowered', now)
    end
    save(key, {'level', 0, 'at', now, 'refused', now}, LEARNED_MS)
  end
  if ends > paused then save(key, {'paused', ends}, tonumber(length)) end
end

return verbs[ARGV[1]](unpack(ARGV, 3))
