-- Whether there is room for one more turn.

-- A thread in which many people ask has this many times its slots.
local CROWD = 4

-- A full thread gets no further turn: if it is in no place, it is made ready.
local function repair_full(thread)
  local id, turn = prune_to_first(thread)
  if not id then return end
  redis.call('ZADD', key('open'), 'NX', now_ms(), id)
  redis.call('SADD', key('open', turn.person), id)
  keep(key('open'), key('open', turn.person))
  repair_open(id)
end

-- One person can fill a thread's slots; then further slots are for people who have none there. Turns that
-- will be answered together have one slot.
local function is_thread_full(thread, person, joins, limit)
  local slots, has_one, waiting = 0, false, nil
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local known = redis.call('HMGET', key('turn', id), 'person', 'fence', 'joins')
    local may_join = known[2] == '0' and known[3] == '1' and known[1]
    if not may_join or may_join ~= waiting then slots = slots + 1 end
    has_one, waiting = has_one or known[1] == person, may_join
  end
  if slots < tonumber(limit) or joins and waiting == person then return false end
  return has_one or slots >= CROWD * limit
end

-- '' if there is room for one more turn.
local function refusal(person, person_limit, total_limit)
  if is_being_forgotten(platform_of(person), id_of(person)) then return 'forgetting' end
  local open = redis.call('SMEMBERS', key('open', person))
  if #open >= tonumber(person_limit) then
    for _, id in ipairs(open) do
      if not is_queued(id, record(id)) then redis.call('SREM', key('open', person), id) end
    end
  end
  if redis.call('ZCARD', key('open')) >= tonumber(total_limit) then check_some_open() end
  if redis.call('SCARD', key('open', person)) >= tonumber(person_limit) then return 'person' end
  return redis.call('ZCARD', key('open')) >= tonumber(total_limit) and 'full' or ''
end
