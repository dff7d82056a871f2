-- The open turns.

-- How many turns a set has, without those whose record has expired.
local function count_turns(name)
  for _, id in ipairs(redis.call('SMEMBERS', name)) do
    if redis.call('EXISTS', key('turn', id)) == 0 then redis.call('SREM', name, id) end
  end
  return redis.call('SCARD', name)
end

-- The thread's first turn and its record; nothing if none is left.
local function first_of(thread)
  while true do
    local id = redis.call('LINDEX', key('mailbox', thread), 0)
    if not id then return end
    local turn = record(id)
    if turn.thread then return id, turn end
    -- Its record has expired.
    redis.call('LPOP', key('mailbox', thread))
    redis.call('ZREM', key('open'), id)
  end
end

local function keeps_others_waiting(thread, person)
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local other = get(id, 'person')
    if other and other ~= person then return true end
  end
  return false
end

-- The milliseconds since a turn was admitted, or asked for again.
local function open_for(id)
  return now_ms() - (tonumber(redis.call('ZSCORE', key('open'), id)) or now_ms())
end
