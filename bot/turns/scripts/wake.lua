-- Makes threads ready whose pause is over, and keeps the streams.

-- Creates the platform's stream. Without `keep`, a stream that is never written would not expire.
function verbs.open(platform)
  local tokens = key('tokens', platform)
  local made = redis.pcall('XGROUP', 'CREATE', tokens, GROUP, '0', 'MKSTREAM')
  -- In a store that is full, a worker would otherwise repeat its read without a pause.
  if made.err and not string.find(made.err, '^BUSYGROUP') then error(made) end
  keep(tokens)
  return 1
end

-- Makes threads ready whose pause is over.
function verbs.wake_delayed(platform)
  local delayed = key('delayed', platform)
  for _, thread in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms(), 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, thread)
    make_ready(thread)
  end
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
