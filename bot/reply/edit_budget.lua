-- The edit budgets: when a write may go out, for all processes. One verb per call, each atomic.
--
-- ARGV[1] is the verb, ARGV[2] the time (empty: this server's own), the rest the arguments of the
-- verb's function below. KEYS are buckets, each a hash. All times are in milliseconds.
--
-- A fixed window opens with its first write; spaced writes come evenly in it, and reserved ones are
-- given away only when it is about to end. A bucket that refills spreads its remaining writes over
-- SPREAD, and widens to the pace of the refill. A sliding window records its last writes. A reply
-- that was just written waits for half an interval, or its writes would show almost the same text.
--
-- <bucket>:owed has the replies that owe a write, each with the time at which its reserve lapses.
-- A 429 shows that a bucket that refills has less than was assumed: that is believed for LEARNED_MS.
-- At the end of its writes one alone shows only that some arrived later than others: see EDGE.

local LAST, SPREAD = 0.05, 10000
-- No platform asks for a longer pause.
local DAY_MS = 86400000
local LEARNED_MS, LOWER, LOWEST = 600000, 0.8, 0.25
local EDGE, AGAIN_MS = 2, 60000 -- writes that were left; after another 429 it is no accident
-- What others owe may be given back at any time, so a write that yields to it asks again soon.
local AGAIN = 1000

-- A value of another version that cannot be read, or is a time too far away, counts as missing.
local function number(written, most)
  local value = tonumber(written)
  return value and value >= 0 and value <= most and value or nil
end

local now = number(ARGV[2], math.huge)
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns which part of its assumed writes a bucket has.
local function share_of(key)
  local saved = redis.call('HMGET', key, 'share', 'lowered')
  local lowered = number(saved[2], now)
  return lowered and now - lowered < LEARNED_MS and number(saved[1], 1) or 1
end

-- Returns how many writes other replies than this one owe, and whether it owes one.
local function owed(key, owner)
  redis.call('ZREMRANGEBYSCORE', key .. ':owed', '-inf', now)
  local owes = redis.call('ZSCORE', key .. ':owed', owner)
  return redis.call('ZCARD', key .. ':owed') - (owes and 1 or 0), owes
end

local function reserve(key, owner, lease)
  redis.call('ZADD', key .. ':owed', now + lease, owner)
  redis.call('PEXPIRE', key .. ':owed', DAY_MS)
end

local function expire(key, least)
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), least))
end

-- Returns the time to wait, the fields that book the write, and the time from now until the bucket
-- takes another spaced one at the earliest.
local function quote(key, age, writes, window, shape, spaced, reserved)
  local saved = redis.call('HMGET', key, 'paused', 'next', 'used', 'ends', 'level', 'at')
  local paused, after = number(saved[1], now + DAY_MS) or 0, number(saved[2], now + 2 * window) or 0
  local wait, interval, ending, fields = 0, 0, false, nil
  if shape == 'slides' then
    local made, most = number(redis.call('HGET', key, 'made'), 2 ^ 52) or 0, writes - reserved
    local before = made >= most
      and number(redis.call('HGET', key, 'write' .. (made - most) % writes), now)
    wait = before and before + window - now or 0
    fields = {'made', made + 1, 'write' .. made % writes, now}
  elseif shape == 'refills' then
    writes = writes * share_of(key)
    local level = number(saved[5], 2 ^ 52) or writes
    level = level + (now - (number(saved[6], now) or now)) * writes / window
    level = math.min(level, writes) - 1
    wait = (reserved - level) * window / writes
    interval = 1 / (writes / window + math.max(level, 0) / SPREAD)
    fields = {'level', level, 'at', now}
  else
    local used, ends = number(saved[3], 2 ^ 52) or 0, number(saved[4], now + window) or 0
    if now >= ends then used, ends = 0, now + window end
    if used >= writes then
      wait = ends - now
    elseif used >= writes - reserved then
      wait = ends - now - LAST * window
    end
    interval = (1 - LAST) * window / math.max(writes - reserved, 1)
    ending = used + 1 >= writes
    fields = {'used', used + 1, 'ends', ends}
  end
  if spaced then wait = math.max(wait, after - now, interval / 2 - age) end
  if spaced and not ending then after = now + interval end
  fields[5], fields[6] = 'next', after
  return math.ceil(math.max(wait, paused - now)), fields, math.max(math.ceil(after - now), 0)
end

local verbs = {}

-- KEYS are the bucket, the one that it is within, and the one in which the write owes another.
-- `age` is since the reply's last write, `owner` and `lease` are of its reserves; then follow for
-- each bucket: writes, window, its shape, 1 for a write that is spaced, how many writes are not
-- available to this one, and its use: "write", "yield" to what others owe, or "owe" a later write.
--
-- Returns {wait, number}: the time to wait before asking again, and the number (from 0) of the
-- bucket that requires it. {0, spacing} if the write may go out: then all have booked it, else none.
function verbs.take(age, owner, lease, ...)
  local buckets, found, windows, spacing = {...}, {}, {}, {}
  for i, key in ipairs(KEYS) do
    local writes, window, shape, spaced, reserved, use = unpack(buckets, 6 * i - 5, 6 * i)
    local wait, others = nil, 0
    if use ~= 'write' then
      local count, owes = owed(key, owner)
      -- What this reply owes is for its last write, so an earlier one yields to it, too.
      others = count + (use == 'yield' and owes and 1 or 0)
    end
    windows[i] = tonumber(window)
    wait, found[i], spacing[i] = quote(
      key, tonumber(age), tonumber(writes), windows[i], shape, spaced == '1', reserved + others
    )
    if use == 'owe' then found[i] = false end
    if others > 0 then wait = math.min(wait, AGAIN) end
    if wait > 0 then return {wait, i - 1} end
  end
  for i, key in ipairs(KEYS) do
    if found[i] then
      redis.call('HSET', key, unpack(found[i]))
      expire(key, 2 * windows[i] + spacing[i])
    else
      reserve(key, owner, lease)
    end
  end
  return {0, spacing[1]}
end

-- Keep reserves for another lease, or give them back.
function verbs.keep(owner, lease)
  for _, key in ipairs(KEYS) do reserve(key, owner, lease) end
end

function verbs.settle(owner)
  for _, key in ipairs(KEYS) do redis.call('ZREM', key .. ':owed', owner) end
end

-- The platform has asked for a pause of this length. Calls that were under way tell nothing new.
function verbs.pause(length, shape, writes, window)
  local key, ends = KEYS[1], now + length
  local saved = redis.call('HMGET', key, 'paused', 'level', 'at', 'refused')
  local paused = number(saved[1], now + DAY_MS) or 0
  if shape == 'refills' and paused <= now then
    local share = share_of(key)
    local level = (number(saved[2], 2 ^ 52) or tonumber(writes))
      + (now - (number(saved[3], now) or now)) * writes * share / window
    if level > EDGE or now - (number(saved[4], now) or 0) < AGAIN_MS then
      redis.call('HSET', key, 'share', math.max(share * LOWER, LOWEST), 'lowered', now)
    end
    redis.call('HSET', key, 'level', 0, 'at', now, 'refused', now)
    expire(key, LEARNED_MS)
  end
  if ends <= paused then return end
  redis.call('HSET', key, 'paused', ends)
  expire(key, tonumber(length))
end

return verbs[ARGV[1]](unpack(ARGV, 3))
