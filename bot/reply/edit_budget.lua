-- The edit budgets: when a write may go out, for all processes. One verb per call, each atomic.
--
-- ARGV[1] is the verb, the rest its arguments in the order of its function below; KEYS are buckets,
-- each a hash of what is known of it. All times are in milliseconds.
--
-- A fixed window opens with its first write. Spaced writes come evenly in it, and those that it
-- keeps are given away only when it is about to end: no other waits for longer than that. A bucket
-- that refills begins dense, for what is left in it is spread over SPREAD, and widens to the pace at
-- which it refills. A window that slides knows its last writes, so that no time of its length sees
-- more. A reply that has just been written waits for half of an interval at least, so that no two of
-- its writes show almost the same text.

local LAST, SPREAD = 0.05, 10000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- No platform asks for a longer pause: what says so was written by another hand.
local DAY_MS = 86400000

-- What another version wrote and cannot be read here is as if it had not been written: so is a time
-- that is further away than any of ours.
local function number(written, most)
  local value = tonumber(written)
  return value and value >= 0 and value <= most and value or nil
end

-- Answers the time to wait, the fields that book the write, and the time from now until the bucket
-- takes another spaced one at the earliest.
local function look(key, now, age, writes, window, shape, spaced, kept)
  local held = redis.call('HMGET', key, 'paused', 'next', 'used', 'ends', 'level', 'at')
  local paused, after = number(held[1], now + DAY_MS) or 0, number(held[2], now + 2 * window) or 0
  local wait, interval, ending = 0, 0, false
  if shape == 'slides' then
    local made, most = number(redis.call('HGET', key, 'made'), 2 ^ 52) or 0, writes - kept
    local before = made >= most
      and number(redis.call('HGET', key, 'write' .. (made - most) % writes), now)
    wait = before and before + window - now or 0
    held = {'made', made + 1, 'write' .. made % writes, now}
  elseif shape == 'refills' then
    local level = number(held[5], writes) or writes
    level = level + (now - (number(held[6], now) or now)) * writes / window
    level = math.min(level, writes) - 1
    wait = (kept - level) * window / writes
    interval = 1 / (writes / window + math.max(level, 0) / SPREAD)
    held = {'level', level, 'at', now}
  else
    local used, ends = number(held[3], 2 ^ 52) or 0, number(held[4], now + window) or 0
    if now >= ends then used, ends = 0, now + window end
    if used >= writes then
      wait = ends - now
    elseif used >= writes - kept then
      wait = ends - now - LAST * window
    end
    interval = (1 - LAST) * window / math.max(writes - kept, 1)
    ending = used + 1 >= writes
    held = {'used', used + 1, 'ends', ends}
  end
  if spaced then wait = math.max(wait, after - now, interval / 2 - age) end
  if spaced and not ending then after = now + interval end
  held[5], held[6] = 'next', after
  return math.ceil(math.max(wait, paused - now)), held, math.max(math.ceil(after - now), 0)
end

local verbs = {}

-- KEYS are the bucket and the one that it is within. `age` is since the reply's last write; then
-- follow for each bucket: writes, window, its shape, 1 for a write that is spaced, and how many
-- writes are kept from this one.
--
-- Answers {wait, number}: the time to wait before asking again, and the number (from 0) of the bucket
-- that wants it so. {0, spacing} when the write may go out: then all have booked it, and else none.
function verbs.take(age, ...)
  local now, each = now_ms(), {...}
  local found, windows, spacing = {}, {}, {}
  for i, key in ipairs(KEYS) do
    local writes, window, shape, spaced, kept = unpack(each, 5 * i - 4, 5 * i)
    local wait
    windows[i] = tonumber(window)
    wait, found[i], spacing[i] = look(
      key, now, tonumber(age), tonumber(writes), windows[i], shape, spaced == '1', tonumber(kept)
    )
    if wait > 0 then return {wait, i - 1} end
  end
  for i, key in ipairs(KEYS) do
    redis.call('HSET', key, unpack(found[i]))
    redis.call('PEXPIRE', key, 2 * windows[i] + spacing[i])
  end
  return {0, spacing[1]}
end

-- For so long the platform wants no write.
function verbs.pause(length)
  local key, ends = KEYS[1], now_ms() + length
  if ends <= (number(redis.call('HGET', key, 'paused'), now_ms() + DAY_MS) or 0) then return end
  redis.call('HSET', key, 'paused', ends)
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), tonumber(length)))
end

return verbs[ARGV[1]](unpack(ARGV, 2))
