-- Requests to the worker of a turn: to stop, or to begin anew.

-- Makes the worker of a turn, or the next one, answer its current question.
local function ask_for_anew(id)
  set(id, 'edited_since_take', '1')
  wake_asking(id)
  redis.call('PUBLISH', key('requests'), id)
end

-- `asker` is the person who asks for it; without one, any reply may be stopped.
function verbs.stop(id, asker)
  id = get(id, 'lead') or id
  if not is_open(record(id)) then return 0 end
  if (asker or '') ~= '' and get(id, 'asker') ~= asker then return 'asker' end
  set(id, 'stop', '1')
  wake_asking(id)
  redis.call('PUBLISH', key('requests'), id)
  return 1
end

-- Stops the first turn of the mailbox if it was taken before: other turns are not visible yet.
function verbs.stop_thread(thread)
  local id = redis.call('LINDEX', key('mailbox', thread), 0)
  if not id or record(id).fence == '0' then return 0 end
  return verbs.stop(id)
end

-- Stops the answers of a person that people see or wait for next, in this thread or anywhere in `channel`,
-- which may be ''. `id` is that of the message with the request: a redelivery is not a question either.
function verbs.stop_own(id, thread, person, channel)
  local state = record(id).state
  if state then return state == 'dropped' and 1 or 0 end
  local stopped = 0
  for _, own in ipairs(redis.call('SMEMBERS', key('open', person))) do
    local turn = record(own)
    local place = turn.thread or ''
    local is_here = place == thread or channel ~= '' and string.sub(place, 1, #channel) == channel
    local is_next = turn.fence ~= '0' or redis.call('LINDEX', key('mailbox', place), 0) == own
    if is_here and is_next then stopped = verbs.stop(own) + stopped end
  end
  if stopped == 0 then return 0 end
  mark_dropped(id, PRESS_MS)
  return 1
end
