-- Repairs of ended replies.

local MOST_REPAIR_ATTEMPTS = 200

local function schedule_repair(id, thread, delay)
  local repairs = key('repairs', platform_of(thread))
  unset(id, 'repair_attempts')
  redis.call('ZADD', repairs, now_ms() + delay, id)
  keep(repairs)
end

-- These messages may show something else than the turn ended with.
local function note_late_writes(id, message_ids)
  if message_ids and message_ids ~= '' then add_id(id, 'late_writes', message_ids) end
end

-- Writes a reply once more, now that other buttons belong below it.
local function repair_buttons(id, thread)
  note_late_writes(id, get(id, 'message_ids'))
  schedule_repair(id, thread, 0)
end

local function end_repair(platform, id)
  if get(id, 'forget') == AFTER_REPAIR then set(id, 'shown', '') end
  return redis.call('ZREM', key('repairs', platform), id)
end

function verbs.report_late_writes(id, message_ids)
  local thread = get(id, 'thread')
  if not thread then return 0 end
  note_late_writes(id, message_ids)
  schedule_repair(id, thread, 0)
  return 1
end

-- Returns {id, claim, the names and values of the record} of a due repair, or false if there is none. The claim
-- expires after `duration` ms. A turn that runs again schedules its repair when it ends.
function verbs.claim_repair(platform, duration)
  local repairs = key('repairs', platform)
  while true do
    local id = redis.call('ZRANGEBYSCORE', repairs, '-inf', now_ms(), 'LIMIT', 0, 1)[1]
    if not id then return false end
    local turn, name = record(id), key('turn', id)
    local has_ended = turn.state and not is_open(turn)
    if has_ended and redis.call('HINCRBY', name, 'repair_attempts', 1) <= MOST_REPAIR_ATTEMPTS then
      local claim = now_ms() + duration
      redis.call('ZADD', repairs, claim, id)
      return {id, claim, redis.call('HGETALL', name)}
    end
    end_repair(platform, id)
  end
end

-- Changes nothing if the repair was scheduled again, or claimed by another worker, meanwhile.
function verbs.complete_repair(platform, id, claim)
  local repairs = key('repairs', platform)
  if redis.call('ZSCORE', repairs, id) ~= claim then return 0 end
  unset(id, 'late_writes', 'repair_attempts')
  return end_repair(platform, id)
end
