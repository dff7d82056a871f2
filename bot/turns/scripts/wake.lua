-- Makes threads ready whose pause is over, and repairs lost tokens.

-- The time in the id of a stream's entry.
local function time_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- If a worker's name is deleted in the stream's group, or the group is set to an id that is ahead of the
-- stream, tokens are never delivered. Deletes such tokens among the oldest; their threads get new ones.
local function drop_lost_tokens(platform)
  local tokens = key('tokens', platform)
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', tokens)) do
    local name, delivered, last = group[2], group[8], redis.call('XINFO', 'STREAM', tokens)[8]
    if name == GROUP and time_of(delivered) > time_of(last) then
      redis.call('XGROUP', 'SETID', tokens, GROUP, last)
      delivered = last
    end
    local oldest = name == GROUP and redis.call('XRANGE', tokens, '-', delivered, 'COUNT', 20) or {}
    for _, token in ipairs(oldest) do
      if not is_pending(platform, token[1]) then redis.call('XDEL', tokens, token[1]) end
    end
  end
end

-- If a stream is lost, so are its tokens. Ready threads get new ones. Threads that were taken become ready
-- again, and their workers learn from it that they have lost the lease.
local function replace_lost_tokens(platform)
  local tokens, claimed = key('tokens', platform), key('claimed', platform)
  local taken = redis.call('HGETALL', claimed)
  for i = 1, #taken, 2 do
    if not is_pending(platform, taken[i]) then
      drop_ticket(platform, taken[i])
      make_ready(taken[i + 1])
    end
  end
  drop_lost_tokens(platform)
  local ready = redis.call('ZCARD', key('ready_threads', platform))
  local free = redis.call('XLEN', tokens) - redis.call('HLEN', claimed)
  for _ = 1, math.min(ready - free, ready) do
    redis.call('XADD', tokens, '*', 'platform', platform)
    keep(tokens)
  end
end

-- Creates the platform's stream. Without `keep`, a stream that is never written would not expire.
function verbs.open(platform)
  local tokens = key('tokens', platform)
  local made = redis.pcall('XGROUP', 'CREATE', tokens, GROUP, '0', 'MKSTREAM')
  -- In a store that is full, a worker would otherwise repeat its read without a pause.
  if made.err and not string.find(made.err, '^BUSYGROUP') then error(made) end
  keep(tokens)
  return 1
end

local function end_pauses(platform, from, to)
  local delayed = key('delayed', platform)
  for _, thread in ipairs(redis.call('ZRANGEBYSCORE', delayed, from, to, 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, thread)
    make_ready(thread)
  end
end

function verbs.wake_delayed(platform)
  check_some_open()
  replace_lost_tokens(platform)
  local now = now_ms()
  end_pauses(platform, '-inf', now)
  -- Set by another program, or before the clock was set back.
  end_pauses(platform, now + DAY_MS + 1, '+inf')
  return 1
end

-- A consumer with pending tokens stays: they are reclaimed from it. This also removes those of killed
-- workers; a worker that reads creates its own again.
function verbs.remove_idle_consumers(platform)
  local tokens = key('tokens', platform)
  -- An error if the stream was never read.
  local consumers = redis.pcall('XINFO', 'CONSUMERS', tokens, GROUP)
  for _, consumer in ipairs(consumers) do
    local name, pending = consumer[2], consumer[4]
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', tokens, GROUP, name)
    end
  end
  return 1
end
