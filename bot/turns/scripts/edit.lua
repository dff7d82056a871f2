-- Edits of questions.

-- A person who edits a question repeatedly delays others in the thread for so many beginnings.
local MOST_RESTARTS = 5

-- The question of a turn that may still be edited: it is open, or the thread's last.
local function question_of(id, turn, text, after)
  local last = last_remembered(turn.thread)
  if not is_open(turn) and last ~= id and last ~= after then return nil end
  return text == '' and last == id and last_question(turn.thread) or text
end

-- Replaces the text of a question that its author has edited, at `edited` (ms), and answers it again. If
-- the turn is not known and was asked less than a day ago, it is admitted: it may be a question only now, or
-- its admission comes later. Of two edits the later wins, in any order. Platforms may report an edit that
-- changes no text.
function verbs.edit(id, thread, person, fields, asked, edited, thread_limit,
    person_limit, total_limit, context, quota)
  local name, turn = key('turn', id), record(id)
  if not turn.state then
    if now_ms() - asked >= DAY_MS or redis.call('EXISTS', key('answered', id)) == 1 then return 'ignored' end
    local answer = verbs.admit(id, thread, person, fields, thread_limit, person_limit, total_limit, context, quota)
    if answer == 'admitted' then redis.call('HSET', name, 'edited', edited) end
    return answer
  end
  fields = decoded(fields)
  local known = redis.call('HMGET', name, 'text', 'edited', 'forget')
  local lead = lead_of(id) or id
  local whole = record(lead)
  if turn.state == 'dropped' or known[3] or not turn.thread then return 'ignored' end
  if asker_of(id) ~= fields.asker or (tonumber(known[2]) or 0) > tonumber(edited) then return 'ignored' end
  local question = question_of(lead, whole, known[1], redis.call('HGET', key('turn', lead), 'after'))
  if not question or question == fields.text then return 'ignored' end

  quota = decoded(quota or '')
  local estimate = natural(quota.estimate)
  if is_open(whole) then
    -- The model is asked once more, unless no worker has begun.
    local again = whole.fence ~= '0'
    local _, _, reserved = reserved_by(id)
    local more = again and estimate or math.max(estimate - reserved, 0)
    local used = quota_refusal(turn.person, turn.thread, quota, again and 1 or 0, more)
    if used ~= '' then return used end
    local restarts = tonumber(redis.call('HGET', key('turn', lead), 'restarts')) or 0
    if restarts >= MOST_RESTARTS and keeps_others_waiting(turn.thread, turn.person) then return 'thread' end
    reserve(lead, turn.person, turn.thread, again and 1 or 0, more)
    -- A stop was for the answer to the previous text.
    redis.call('HDEL', key('turn', lead), 'stop')
    copy_preferences(lead, turn.thread)
    ask_for_anew(lead)
  else
    if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'ignored' end
    local full = refusal(turn.person, person_limit, total_limit)
    if full == '' then full = quota_refusal(turn.person, turn.thread, quota, 1, estimate) end
    if full ~= '' then return full end
    enqueue_again(lead, whole, last_remembered(turn.thread), quota)
  end
  redis.call('HSET', name, 'text', fields.text, 'left_out', fields.left_out, 'edited', edited)
  return 'edited'
end
