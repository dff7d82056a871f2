-- Regenerate and Continue.

-- Why a person may not regenerate or continue the thread's last turn; '' if they may. A turn without
-- an exchange is the last one as long as none has followed it (`after`).
local function press_refusal(id, turn, asker, person_limit, total_limit, quota)
  local known = redis.call('HMGET', key('turn', id), 'forget', 'after', 'asker', 'aside')
  if known[1] or not known[3] or not turn.thread or turn.state == 'dropped' then return 'gone' end
  if known[3] ~= asker then return 'asker' end
  if redis.call('LINDEX', key('mailbox', turn.thread), 0) == id then return 'thread' end
  local last = last_remembered(turn.thread)
  if last ~= id and last ~= known[2] then return last == '' and 'gone' or 'older' end
  if known[4] then return 'older' end
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'thread' end
  local full = refusal(turn.person, person_limit, total_limit)
  return full ~= '' and full or quota_refusal(turn.person, turn.thread, quota, needs(quota))
end

-- What the turn has shown, and its exchange in the history, stay until there is a new answer. `place`, which may
-- be '', is JSON that is added to the turn's place. `text` is '' if the question is as it was.
function verbs.regenerate(id, asker, press, place, person_limit, total_limit, quota, text, left_out)
  local turn, pressed = record(id), key('pressed', press)
  if redis.call('EXISTS', pressed) == 1 then return 'again' end
  quota = decoded(quota)
  local refused = press_refusal(id, turn, asker, person_limit, total_limit, quota)
  if refused ~= '' then return refused end

  redis.call('SET', pressed, id, 'PX', PRESS_MS)
  if place ~= '' then set(id, 'pressed_place', place) end
  enqueue_again(id, turn, quota)
  if (text or '') ~= '' then replace_question(id, text, left_out) end
  return 'again'
end

-- Admits the turn `following`, which continues the answer of a thread's last turn. It is a turn of its own, so
-- a call or a press that comes twice finds its id.
function verbs.continue(id, asker, following, fields, person_limit, total_limit, quota)
  local turn = record(id)
  if redis.call('EXISTS', key('turn', following)) == 1 then return 'admitted' end
  quota = decoded(quota)
  local refused = press_refusal(id, turn, asker, person_limit, total_limit, quota)
  if refused ~= '' then return refused end
  if last_remembered(turn.thread) ~= id then return 'gone' end
  if get(id, 'ended') ~= 'cut' then return 'ended' end
  add_id(id, 'continued', following)
  fields = decoded(fields)
  fields.once = get(id, 'once') or nil
  store_turn(following, turn.thread, turn.person, fields, quota)
  redis.call('SUNIONSTORE', key('effects', following), key('effects', id))
  keep_in(turn.thread, key('effects', following))
  return 'admitted'
end
