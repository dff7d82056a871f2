-- Whether there is room for one more turn.

-- A thread in which many people ask has this many times its slots.
local CROWD = 4

-- One person can fill a thread's slots; then further slots are for people who have none there. Turns that
-- will be answered together have one slot.
local function is_thread_full(thread, person, joins, limit)
  -- The person of turns that will be answered together, as far as they follow each other; else false.
  local slots, has_one, group = 0, false, false
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local known = redis.call('HMGET', key('turn', id), 'person', 'fence', 'joins')
    local its_group = known[2] == '0' and known[3] == '1' and known[1]
    if not its_group or its_group ~= group then slots = slots + 1 end
    has_one, group = has_one or known[1] == person, its_group
  end
  if slots < tonumber(limit) or joins and group == person then return false end
  return has_one or slots >= CROWD * limit
end

-- '' if there is room for one more turn.
local function refusal(person, person_limit, total_limit)
  if is_being_forgotten(platform_of(person), id_of(person)) then return 'forgetting' end
  local all, own = key('open'), key('open', person)
  person_limit, total_limit = tonumber(person_limit), tonumber(total_limit)
  if redis.call('SCARD', own) >= person_limit and count_turns(own) >= person_limit then return 'person' end
  if redis.call('ZCARD', all) < total_limit then return '' end
  -- The records of older turns have expired.
  redis.call('ZREMRANGEBYSCORE', all, '-inf', now_ms() - ARGV[2])
  return redis.call('ZCARD', all) >= total_limit and 'full' or ''
end
